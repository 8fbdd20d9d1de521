"""The app as a module, for ``modal deploy -m internvl_modal.modal_app``.

Configured by the ``INTERNVL_MODAL_DEPLOY_*`` variables; the key is the one kept from the last
deploy, else INTERNVL_MODAL_API_KEY, else, where nothing is deployed, a new one, which is kept.
"""

from internvl_modal.deployment.api import module_app

app = module_app()
