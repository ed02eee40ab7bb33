"""What is applied to a cluster, on an API server of its own for these tests."""
