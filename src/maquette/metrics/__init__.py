"""What an audit measures; each file one question."""
