module github.com/doveadm-proxy/doveadm-proxy/bench

go 1.26.0

require (
	github.com/doveadm-proxy/doveadm-proxy v0.0.0
	github.com/google/go-cmp v0.7.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/go-crypt/crypt v0.14.15 // indirect
	github.com/go-crypt/x v0.4.16 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
)

replace github.com/doveadm-proxy/doveadm-proxy => ../
