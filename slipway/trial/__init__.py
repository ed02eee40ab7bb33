"""A try: what the workflow `train` does, in one go on this machine, from the working tree.

The steps are the workflow's own functions. Here they are given a store that is a folder, and
remembered, so that what has not changed is not done again.
"""
