"""The stand-in for Pulumi's Kubernetes plugin, on an API server of its own for these tests."""
