"""The executor `ray`: tasks run on the machines of a Ray cluster, which need not share a file system.

    driver.py    the executor: gives tasks to workers, takes what they bring, replaces those that die
    worker.py    the actor on a machine of the cluster: one task at a time, in a process as of `local`
    parcels.py   what goes to a worker: the task, the folders that it reads, the files that its recipe names
    watching.py  what comes back: the files of the folder that a task writes, as they are written
    cluster.py   connecting, and counting what the cluster has

Ray is imported inside functions: `pip install "paretune[ray]"` brings it.
"""
