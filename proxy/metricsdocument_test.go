package proxy_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

var updateMetrics = flag.Bool("update-metrics", false, "write docs/metrics.md")

// TestMetricsDocument: docs/metrics.md has every metric, as it is described.
func TestMetricsDocument(t *testing.T) {
	const path = "../docs/metrics.md"
	const begin, end = "<!-- metrics: begin -->\n", "<!-- metrics: end -->\n"
	text, err := os.ReadFile(path)
	must(t, err)
	head, rest, ok := strings.Cut(string(text), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", path)
	}
	var table strings.Builder
	table.WriteString("| metric | kind | labels | says |\n|---|---|---|---|\n")
	for _, m := range proxy.MetricTable() {
		labels := ""
		if len(m.Labels) > 0 {
			labels = "`" + strings.Join(m.Labels, "` `") + "`"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", m.Name, m.Kind, labels, m.Help)
	}
	want := head + begin + table.String() + end + tail
	if *updateMetrics {
		must(t, os.WriteFile(path, []byte(want), 0o644))
	}
	if want != string(text) && !*updateMetrics {
		t.Errorf("%s is not up to date: go test ./proxy -run MetricsDocument -update-metrics", path)
	}
}

// known returns the names of all metrics that a process has, those of the Go
// runtime and of the process that the examples use among them.
func known() map[string]bool {
	names := map[string]bool{"up": true}
	for _, m := range proxy.MetricTable() {
		names[m.Name] = true
		if m.Kind == "histogram" {
			names[m.Name+"_bucket"], names[m.Name+"_sum"], names[m.Name+"_count"] = true, true, true
		}
	}
	// Of the command, whose tests have them in a real scrape.
	for _, name := range []string{
		"doveadm_proxy_build_info", "doveadm_proxy_log_lines_held_back_total",
		"process_resident_memory_bytes", "process_open_fds", "process_max_fds", "process_cpu_seconds_total", "go_memstats_heap_inuse_bytes",
	} {
		names[name] = true
	}
	return names
}

var metricName = regexp.MustCompile(`\b(doveadm_proxy|process_resident|process_virtual|process_cpu|process_open|process_max|go_memstats|go_gc)_[a-z0-9_]+\b|\bup\b\{`)

func checkNames(t *testing.T, where, text string) {
	t.Helper()
	names := known()
	for _, name := range metricName.FindAllString(text, -1) {
		if name = strings.TrimSuffix(name, "{"); !names[name] {
			t.Errorf("%s: there is no metric %s", where, name)
		}
	}
}

// TestAlerts: promtool takes the rules and their tests, every alert has one, and
// each alert has its runbook and each runbook its alert.
func TestAlerts(t *testing.T) {
	t.Parallel()
	const dir = "../examples/prometheus"
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		cmd := exec.Command("promtool", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %q: %v\n%s", args, err, out)
		}
	}
	rules, err := os.ReadFile(filepath.Join(dir, "alerts.yml"))
	must(t, err)
	tests, err := os.ReadFile(filepath.Join(dir, "alerts_test.yml"))
	must(t, err)
	checkNames(t, "alerts.yml", string(rules))
	checkNames(t, "alerts_test.yml", string(tests))
	var alerts []string
	for _, m := range regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(string(rules), -1) {
		alerts = append(alerts, m[1])
		if !strings.Contains(string(rules), "runbook_url: docs/runbooks/"+m[1]+".md\n") {
			t.Errorf("%s has no runbook_url", m[1])
		}
		if !strings.Contains(string(tests), "  - name: "+m[1]+"\n") || !strings.Contains(string(tests), "16h, alertname: "+m[1]+",") {
			t.Errorf("%s is not tested, firing and at rest", m[1])
		}
	}
	var books []string
	paths, err := filepath.Glob("../docs/runbooks/*.md")
	must(t, err)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		must(t, err)
		name := strings.TrimSuffix(filepath.Base(path), ".md")
		books = append(books, name)
		if !strings.HasPrefix(string(text), "# "+name+"\n") {
			t.Errorf("%s has another title", path)
		}
		checkNames(t, path, string(text))
		for _, link := range regexp.MustCompile(`\]\(([^)#]+)`).FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), link[1])); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	slices.Sort(alerts)
	slices.Sort(books)
	if len(alerts) == 0 || !slices.Equal(alerts, books) {
		t.Errorf("alerts %v, runbooks %v", alerts, books)
	}
}

// TestDashboard: it is JSON, and every metric that it names is there, with the
// labels that it asks for.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("../examples/grafana/doveadm-proxy.json")
	must(t, err)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	must(t, json.Unmarshal(text, &dashboard))
	if len(dashboard.Panels) < 20 {
		t.Errorf("%d panels", len(dashboard.Panels))
	}
	labels := make(map[string][]string)
	for _, m := range proxy.MetricTable() {
		labels[m.Name] = m.Labels
	}
	selector := regexp.MustCompile(`(doveadm_proxy_[a-z_]+)\{([^}]*)\}`)
	for _, p := range dashboard.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			checkNames(t, p.Title, target.Expr)
			for _, m := range selector.FindAllStringSubmatch(target.Expr, -1) {
				have := labels[strings.TrimSuffix(m[1], "_bucket")]
				for _, l := range regexp.MustCompile(`(\w+)=~?"`).FindAllStringSubmatch(m[2], -1) {
					if l[1] != "instance" && !slices.Contains(have, l[1]) {
						t.Errorf("%s: %s has no label %s", p.Title, m[1], l[1])
					}
				}
			}
		}
	}
}

// TestScrapeHasTable: every metric of the table that does not wait for something
// to happen is in a real scrape, and nothing else is.
func TestScrapeHasTable(t *testing.T) {
	s, _ := startWith(t, 4, answer, both(newUsers(t, "s1").first(nil), movable(t)))
	eventually(t, "it is sure who was moved", func() bool { return s.metrics(t)["moves_fresh"] == 1 })
	s.login(t, client13).works(t)
	eventually(t, "the command is counted", func() bool {
		return s.metrics(t)[`commands_total{backend="b1",class="quick",outcome="answered"}`] == 1
	})
	text := string(scrape(t, s.Proxy))
	waits := []string{
		"backend_dial_errors_total", "backend_last_error_timestamp_seconds", "certificate_expiry_timestamp_seconds",
		"password_changed_timestamp_seconds", "audit_records_total", "audit_waiting_records", "audit_failing", "pool_closed_connections_total",
		"route_map_users", "route_map_read_timestamp_seconds", "route_map_failing",
	}
	for _, m := range proxy.MetricTable() {
		in := strings.Contains(text, "# TYPE "+m.Name+" "+m.Kind+"\n")
		if !in && !slices.Contains(waits, strings.TrimPrefix(m.Name, "doveadm_proxy_")) {
			t.Errorf("%s is not in a scrape", m.Name)
		}
	}
	checkNames(t, "scrape", text)
}
