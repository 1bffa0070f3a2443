"""Answers about whole collections of pictures: read, decode, run the model, write; here or on a Ray cluster."""
