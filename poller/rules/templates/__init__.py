"""Templates of other tools: the event source mappings and functions of SAM, CloudFormation, CDK and Serverless Framework.

What may live here: how a template's values are resolved, and where in it functions and mappings are. A template is plain data already; how
files are read, and how what is found becomes a configuration, is decided in `poller.config`. Everything is bounded: steps, depth, lengths.
"""
