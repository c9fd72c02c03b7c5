"""Where the API servers of a cluster keep its objects: SQLite, or etcd."""
