"""Owns which variables name the AWS region.

botocore by itself knows AWS_DEFAULT_REGION alone. AWS's other SDKs, its platforms and our Helm chart set AWS_REGION.
"""

SESSION_VARIABLES = {"region": ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None)}
"""For each botocore session that is made: the profile's key and the variables, which go before it."""
