# The development cluster; see docs/development-cluster.md.

.PHONY: cluster-up cluster-down

cluster-up: ## Bring up the development cluster (as root; CLUSTER=existing uses that of KUBECONFIG)
	e2e/cluster/up

cluster-down: ## End the development cluster and remove all that it left
	e2e/cluster/down
