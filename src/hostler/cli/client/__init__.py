"""``hostler`` as a client: commands that ask a node, and that bring functions to it.

* ``apps``: `hostler app`
* ``deploy``: `hostler deploy`: Dockerfile, build, push, publish
* ``errors``: exit codes and texts of client commands
* ``fns``: `hostler fn`
* ``func_file``: `func.yaml`
* ``invoke``: `hostler invoke`
* ``logs``: `hostler logs`
* ``many_nodes``: asking several nodes the same
* ``names``: apps, functions and triggers by name, in one API session
* ``options``: options, arguments and their completion
* ``output``: tables, JSON and printed function output
* ``run``: `hostler run`: a directory's function served and reloaded
* ``shell``: shell completion script and its installation
* ``status``: `hostler status`
* ``triggers``: `hostler trigger`
"""
