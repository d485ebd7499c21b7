"""Many photos through one recipe: inputs, the runner (one photo is a set of one), what is written."""
