"""The verbs: each reads a folder and writes a folder. A file for each, so that `maquette.train` stays the function a person calls."""
