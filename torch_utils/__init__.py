"""What training and inference need from torch that is not about novel views: ranks, their launcher, and files."""
