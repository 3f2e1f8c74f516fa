"""One file a kind of content; the file's name is its name on the command line."""
