"""``python -m internvl_modal`` is the command ``internvl-modal``."""

from internvl_modal.cli import main

main()
