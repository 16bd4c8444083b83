module upstreamguard.io/lab/pause

go 1.22
