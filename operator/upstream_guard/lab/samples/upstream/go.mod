module upstreamguard.io/lab/upstream

go 1.22
