"""The repository server: a downloads tree in, answers to agents out."""
