"""Published constants and recipes as data: `protocol.yaml` of each task room, and the one way to read it."""

from tasks.protocols.reading import ROOMS, Constant, Difference, Protocol, PublishedRecipe, protocol

__all__ = ["ROOMS", "Constant", "Difference", "Protocol", "PublishedRecipe", "protocol"]
