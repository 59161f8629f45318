"""The web application: `python app.py`, or `gunicorn app:app`."""

import os
import sys

from spinexr.errors import ConfigurationError
from spinexr.settings import Settings

try:
    settings = Settings.from_env(os.environ)
except ConfigurationError as e:
    sys.exit(f"SpineXR cannot start: {e.message}")

if __name__ == "__main__":
    from spinexr.server import serve

    serve(settings)
else:
    from spinexr.web import create_app

    try:
        app = create_app(settings)
    except ConfigurationError as e:
        sys.exit(f"SpineXR cannot start: {e.message}")
