"""Task heads: what a trained network is used for, one file each."""
