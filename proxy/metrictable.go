package proxy

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// namespace begins the names of all metrics of the proxy's own.
const namespace = "doveadm_proxy_"

// metric is one family of metrics. Its labels stand in their alphabetical order,
// in which Prometheus wants the values.
type metric struct {
	name   string
	kind   dto.MetricType
	help   string
	labels []string
	desc   *prometheus.Desc
}

// metricTable is all of them, as docs/metrics.md shows them.
var metricTable []*metric

func define(kind dto.MetricType, name, help string, labels ...string) *metric {
	m := &metric{name: namespace + name, kind: kind, help: help, labels: labels}
	m.desc = prometheus.NewDesc(m.name, m.help, m.labels, nil)
	metricTable = append(metricTable, m)
	return m
}

func counter(name, help string, labels ...string) *metric {
	return define(dto.MetricType_COUNTER, name, help, labels...)
}

func gauge(name, help string, labels ...string) *metric {
	return define(dto.MetricType_GAUGE, name, help, labels...)
}

func durations(name, help string, labels ...string) *metric {
	return define(dto.MetricType_HISTOGRAM, name, help, labels...)
}

// Of commands.
var (
	commandsTotal    = counter("commands_total", "Commands that have ended, by how they did. The backend is empty where none was asked, and \"referral\" for servers that only referrals name.", "backend", "class", "outcome")
	commandSeconds   = durations("command_duration_seconds", "From the end of the request to the end of the reply, of commands that had a connection to the backend.", "backend", "class")
	firstByteSeconds = durations("command_first_byte_seconds", "From the moment at which a command has its connection to the first byte of the backend's reply.", "backend", "class")
	waitSeconds      = durations("command_wait_seconds", "How long commands waited for a connection, those that got none too.", "backend", "class")
	repliesTotal     = counter("replies_total", "Replies that arrived whole, by their status: that of outcome \"answered\".", "backend", "status")
	outputBytes      = counter("output_bytes_total", "Bytes of replies that backends sent.", "backend")
	inputBytes       = counter("input_bytes_total", "Bytes of inputs that came with commands (save, sieve put).", "backend")
	retriesTotal     = counter("retries_total", "Commands that were sent again, because a connection had ended before the first byte of the reply.", "backend")
	retriesRefused   = counter("retries_refused_total", "Commands that were not sent again, because too many had been.", "backend")
	failoversTotal   = counter("failovers_total", "Commands that had no connection to this backend and went to another of its shard.", "backend")
	referralsTotal   = counter("referrals_total", "Commands that this backend sent elsewhere by -REFERRAL, where the proxy followed.", "backend")
	commandsRunning  = gauge("commands_running", "Commands that run or wait now.")
	clientCommands   = counter("client_commands_total", "Commands of a client, by how they ended.", "client", "outcome")
	routeDecisions   = counter("route_decisions_total", "Commands that were routed, by the route that named the shard.", "route")
	routeAnswers     = counter("route_answers_total", "Questions of commands for the place of a user at a route that looks it up elsewhere, by where the answer came from: cache, lookup, stale (kept, too old, and the lookup failed), none (a temporary failure).", "from", "route")
	routeLookups     = counter("route_lookups_total", "Lookups of such a route, by their end: found, missing (the source does not know the user), failed, breaker (not begun: its circuit breaker is open), busy (not begun in time: max_lookups were on their way).", "result", "route")
	lookupSeconds    = durations("route_lookup_seconds", "How long the source took for a lookup.", "route")
	lookupsRunning   = gauge("route_lookups_running", "Lookups that ask the source now.", "route")
	lookupsKept      = gauge("route_cache_users", "Users whose answers are kept.", "route")
	lookupsFailing   = gauge("route_lookups_failing", "1: the last lookup failed.", "route")
	lookupBreaker    = gauge("route_lookup_breaker_state", "What the circuit breaker of the lookups does: 0 closed, 1 half-open, 2 open.", "route")
	mapUsers         = gauge("route_map_users", "Lines of a map of users that is in use, those of domains included.", "path")
	mapRead          = gauge("route_map_read_timestamp_seconds", "When the map that is in use was read.", "path")
	mapFailing       = gauge("route_map_failing", "1: the file has changed and cannot be used, so what was read before is.", "path")
)

// Of users who are moved, with a moves block.
var (
	movesFresh     = gauge("moves_fresh", "1: it is sure who was moved where; 0: commands get a temporary failure, because the database has not been reached for too long.")
	movesReachable = gauge("moves_database_reachable", "1: the database answered the last time.")
	movesUsers     = gauge("moves_exceptions", "Users who were moved away from where their route sends them.")
	movesHeld      = gauge("moves_held_users", "Users whose commands wait for the end of a move.")
	movesWaiting   = gauge("moves_waiting_commands", "Commands that wait for that.")
	movesTotal     = counter("moves_total", "Moves that ended on this proxy: moved, failed (rolled back), abandoned (those of other proxies that were gone, rolled back here).", "result")
	movesLongest   = gauge("moves_longest_hold_seconds", "The longest time for which a move made here held the commands of its user.")
)

// Of pools and backends.
var (
	backendInfo        = gauge("backend_info", "1; the labels say what a backend is.", "address", "backend", "shard", "standby")
	backendAvailable   = gauge("backend_available", "1: nothing speaks against the backend; 0: an operator, its health checks or its breaker do.", "backend")
	operatorState      = gauge("backend_operator_state", "What an operator wants of the backend: 0 active, 1 draining, 2 down.", "backend")
	healthState        = gauge("backend_health_state", "What the health checks see: 0 unknown (no check, or none yet), 1 up, 2 failing.", "backend")
	breakerState       = gauge("backend_breaker_state", "What the circuit breaker does: 0 closed, 1 half-open, 2 open.", "backend")
	breakerOpened      = counter("breaker_opened_total", "How often the circuit breaker opened.", "backend")
	poolConnections    = gauge("pool_connections", "Connections to the backend.", "backend", "state")
	poolMax            = gauge("pool_max_connections", "max_open of the pool.", "backend")
	poolLimit          = gauge("pool_limit_commands", "Commands that may run at the same time: as many as the backend was found to answer most of, at most max_open.", "backend")
	poolWaiting        = gauge("pool_waiting_commands", "Commands that wait for a connection.", "backend", "priority")
	poolAcquired       = counter("pool_acquired_total", "Connections lent to commands.", "backend")
	poolRefused        = counter("pool_refused_total", "Commands that got no connection without a dial having failed for them: the breaker was open, too many waited, or none became free in time.", "backend", "reason")
	poolClosed         = counter("pool_closed_connections_total", "Connections closed, by the reason.", "backend", "reason")
	dialsTotal         = counter("backend_dials_total", "Connections that were begun.", "backend")
	dialErrors         = counter("backend_dial_errors_total", "Connections that came to nothing, by the step that failed: name, connect, tls, no-process (accepted and never greeted: process_limit), greeting (what answers is no doveadm server), login (password), other.", "backend", "cause")
	connectSeconds     = durations("backend_connect_seconds", "Until a connection to the backend stood.", "backend")
	loginSeconds       = durations("backend_login_seconds", "From there to the end of the login: TLS, greeting, password. A backend starts a process meanwhile.", "backend")
	tlsResumed         = counter("backend_tls_resumed_total", "Connections that took up an earlier TLS session.", "backend")
	healthChecks       = counter("backend_health_checks_total", "Health checks.", "backend")
	healthErrors       = counter("backend_health_check_errors_total", "Health checks that failed.", "backend")
	lastErrorTimestamp = gauge("backend_last_error_timestamp_seconds", "When a dial, a health check or a connection in use failed for the last time.", "backend")
)

// Of clients.
var (
	listenerSessions   = gauge("listener_sessions", "Sessions that are open, by listener.", "listener")
	clientSessions     = gauge("client_sessions", "Sessions that are logged in, by client.", "client")
	loginsTotal        = counter("logins_total", "Handshakes with clients, by how they ended: ok, wrong (name or password), penalty (refused for earlier failures), clear-text, limit (of sessions), busy (too many passwords to check), protocol (no doveadm client), tls, timeout, gone, error.", "result")
	connectionsRefused = counter("connections_refused_total", "Connections that were not let in, by the limit.", "reason")
	badLines           = counter("bad_lines_total", "Lines that are no command, with which sessions end.", "reason")
	sessionPanics      = counter("session_panics_total", "Sessions that ended by a bug. Please report what the log says.")
)

// Of the process.
var (
	readyGauge        = gauge("ready", "1: new sessions are accepted.")
	reloadSuccessful  = gauge("config_last_reload_successful", "1: the last reload took its configuration over, or there was none; 0: the one before keeps serving.")
	reloadTimestamp   = gauge("config_last_reload_success_timestamp_seconds", "When the configuration in use was taken over.")
	reloadsTotal      = counter("config_reloads_total", "Reloads, by their result.", "result")
	certificateExpiry = gauge("certificate_expiry_timestamp_seconds", "When a certificate expires: of a listener, of a backend (as it showed it last), or the one that the proxy shows a backend.", "name", "of")
	passwordChanged   = gauge("password_changed_timestamp_seconds", "When the file of a password was written.", "name", "of")
	oldPassword       = gauge("old_password_valid", "1: an old password is valid beside the new one: it is being replaced.", "name", "of")
	auditRecords      = counter("audit_records_total", "Records of the audit log, by what became of them.", "result")
	auditWaiting      = gauge("audit_waiting_records", "Records of the audit log that are still to be written.")
	auditFailing      = gauge("audit_failing", "1: the last attempt to write the audit log failed.")
	spoolBytes        = gauge("spool_bytes", "Bytes of replies and inputs that wait, in memory or in files of limits.spool_dir.", "where")
	spoolLimit        = gauge("spool_limit_bytes", "What may wait at most in files (limits.max_spool).")
	spoolFiles        = gauge("spool_files", "Open files of limits.spool_dir.")
)

// MetricInfo describes one of the metrics of a Proxy.
type MetricInfo struct {
	Name   string
	Kind   string // counter, gauge or histogram
	Labels []string
	Help   string
}

// MetricTable describes all of them.
func MetricTable() []MetricInfo {
	var all []MetricInfo
	for _, m := range metricTable {
		all = append(all, MetricInfo{m.name, strings.ToLower(m.kind.String()), m.labels, m.help})
	}
	return all
}
