"""A package, so that the one of this name that gmqtt installs beside it is not found in its place."""
