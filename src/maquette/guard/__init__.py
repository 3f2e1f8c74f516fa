"""What a policy forbids, found and named in text; and the gates an audit has to pass."""
