"""Serve the demo app: ``DATABASE_URL=… OPENAI_BASE_URL=… python -m perfnb.demo.app``; port 0 takes a free one."""

import os

import uvicorn

from perfnb.demo.app.settings import Settings
from perfnb.demo.app.web import create_app

uvicorn.run(
    create_app(Settings.read(), os.environ["DATABASE_URL"]),
    host=os.environ.get("HOST", "127.0.0.1"),
    port=int(os.environ.get("PORT", "8000")),
    workers=1,
    access_log=False,
    timeout_graceful_shutdown=2,
)
