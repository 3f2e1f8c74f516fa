"""Ways to fit a trained model to something else, one file each."""
