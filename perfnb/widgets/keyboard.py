"""Let arrow keys reach a live control: in a notebook's command mode JupyterLab takes them for itself.

JupyterLab runs no shortcut for keys pressed below an element that has ``data-lm-suppress-shortcuts`` (Lumino's
CommandRegistry); its notebook also takes the focus back at any key that reaches it.
"""

from typing import Any

from perfnb.widgets.progress import LIVE_ONLY

LIVE = "pnb-live"

_SCRIPT = f"""
if (!window.perfnbKeys) {{
  window.perfnbKeys = true;
  document.addEventListener("focusin", (event) => {{
    const control = event.target.closest && event.target.closest(".{LIVE}");
    if (!control || control.dataset.lmSuppressShortcuts) return;
    control.dataset.lmSuppressShortcuts = "true";
    control.addEventListener("keydown", (pressed) => pressed.stopPropagation());
  }});
}}
"""


def with_keys(control: Any) -> Any:
    """Return ``control`` after making sure, in the page that shows it, that its keys reach it."""
    from IPython.display import display

    control.add_class(LIVE)
    display({"application/javascript": _SCRIPT}, raw=True, metadata=LIVE_ONLY)
    return control
