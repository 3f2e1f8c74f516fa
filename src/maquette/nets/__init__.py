"""Bodies of networks, chosen by Space and sized by one number."""
