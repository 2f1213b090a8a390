"""Whole nodes, composed of the parts of the other packages as their settings say.

* ``api``: an API node
* ``function_lookup``: where a node finds functions: file, database, another node
* ``lb``: a load balancer node
* ``lifetime``: process lifetime of a node: shutdown, readiness, the announcement
* ``page``: the node's page and log tail, if enabled
* ``parts``: parts that nodes share: guarded application, driver, HTTP serving, following TLS files
* ``runner``: a runner node
* ``serve``: a single-process node: front end and agent, detached calls
* ``settings``: settings of a node from environment and options, and objects named
  `module:attribute`
* ``workers``: several processes of one node
"""
