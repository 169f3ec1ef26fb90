module github.com/taskcluster/taskcluster-worker/apps/dc-linux-worker

go 1.26.0

require github.com/taskcluster/taskcluster-worker v0.0.0

replace github.com/taskcluster/taskcluster-worker => ../..
