"""Steps of the workflows, on a store and a registry of their own while the package is tested."""
