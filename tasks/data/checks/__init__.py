"""What is looked at before training: identity of content, shared pictures, labels; how far a long look is."""
