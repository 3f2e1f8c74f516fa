"""How a trained model is fitted to something new: all of it, its last layers, or thin matrices beside its weights."""
