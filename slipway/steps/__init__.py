"""The workflow's steps, each a function of digests: run again, a step gives the same digests."""
