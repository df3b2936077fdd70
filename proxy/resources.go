package proxy

import (
	"math"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// reservedFiles is how many file descriptors are left for what is neither a
// session nor a connection to a backend: listeners, the log, control sockets,
// secrets and maps that are read again.
const reservedFiles = 64

// resources are what the machine gives the proxy: file descriptors and memory.
// All methods may be called from any goroutine.
type resources struct {
	files  atomic.Int64 // descriptors that sessions and their spools may have; 0: not known
	memory atomic.Int64 // bytes; 0: no limit

	mu     sync.Mutex
	looked time.Time // when used was read
	used   int64     // bytes of memory
	sample [2]metrics.Sample
}

// Of the memory that the proxy may have, a quarter is for what slow clients
// have not read. With more than three quarters in use there are no more
// sessions: the garbage collector needs the rest.
const (
	bufferShare = 4
	shedAt      = 3. / 4
)

// MaxFiles returns how many files the process may have open, and how many of
// them there are for sessions when all pools of cfg are full. Zeros: it is not
// known.
func MaxFiles(cfg *config.Config) (limit, sessions int64) {
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) != nil || r.Cur > math.MaxInt32 {
		return 0, 0
	}
	limit = int64(r.Cur)
	sessions = limit - reservedFiles
	for _, shard := range cfg.Shards {
		for _, b := range shard.Backends {
			sessions -= int64(b.Pool.MaxOpen)
		}
	}
	return limit, max(sessions, 1)
}

// configure takes the limits of a configuration.
func (r *resources) configure(cfg *config.Config) {
	_, sessions := MaxFiles(cfg)
	r.files.Store(sessions)
	limit := cfg.Limits.MaxMemory
	if limit == 0 {
		if env := debug.SetMemoryLimit(-1); env < math.MaxInt64 {
			limit = env
		}
	}
	r.memory.Store(limit)
}

// buffers is how many bytes of memory spools may have.
func (r *resources) buffers() int64 {
	if limit := r.memory.Load(); limit > 0 {
		return limit / bufferShare
	}
	return math.MaxInt64
}

// exhausted returns of what there is too little for another session, or "".
// inUse is the descriptors that sessions and their spools have.
func (r *resources) exhausted(inUse int64) string {
	if files := r.files.Load(); files > 0 && inUse >= files {
		return "no file descriptor is left for it (LimitNOFILE of the systemd unit)"
	}
	if limit := r.memory.Load(); limit > 0 && float64(r.memoryUsed()) > shedAt*float64(limit) {
		return "no memory is left for it (limits.max_memory, or GOMEMLIMIT)"
	}
	return ""
}

// memoryUsed is how much memory is in use, in bytes, not older than a moment:
// the stacks, and what the last garbage collection has left of the heap.
func (r *resources) memoryUsed() int64 {
	const moment = 50 * time.Millisecond
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.looked) > moment {
		r.looked = now
		r.sample[0].Name, r.sample[1].Name = "/gc/heap/live:bytes", "/memory/classes/heap/stacks:bytes"
		metrics.Read(r.sample[:])
		r.used = int64(r.sample[0].Value.Uint64() + r.sample[1].Value.Uint64())
	}
	return r.used
}
