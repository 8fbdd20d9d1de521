"""The few transforms that LMDeploy takes from torchvision, which has no build for every torch."""
