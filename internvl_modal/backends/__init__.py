"""Plug-ins that make an endpoint exist: a URL, llama.cpp, LMDeploy, a deployment on Modal.

Found by entry point in the group ``internvl_modal.backends`` and imported by nobody.
"""
