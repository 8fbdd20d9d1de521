"""Put InternVL 2.5-78B on Modal, describe a picture, stop it again.

python examples/deploy.py photo.jpg
"""

import sys

from internvl_modal import deploy

plan = deploy(dry_run=True)
print(plan.spec)

deployment = deploy()
print(deployment.urls)

with deployment.client() as client:
    for picture in sys.argv[1:]:
        print(client.describe(picture))

deployment.stop()
