"""A backbone at one grid as a plain module, and as a file that runs without this package."""

from backbones.deploy.module import Deployed, FixedEncoder, deploy, deploy_model

__all__ = ["Deployed", "FixedEncoder", "deploy", "deploy_model"]
