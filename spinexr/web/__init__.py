"""The web layer: pages, API and health over the one path."""

from spinexr.web.application import create_app

__all__ = ["create_app"]
