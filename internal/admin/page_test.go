package admin_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

var screenshots = flag.String("screenshots", "", "write pictures of the status page into `DIR`")

// browser is a Chromium that loads the status page, and what it complained of.
type browser struct {
	ctx context.Context

	mu       sync.Mutex
	problems []string
}

func startBrowser(t *testing.T) *browser {
	t.Helper()
	program, err := findChromium()
	if err != nil {
		t.Fatal(err)
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(program), chromedp.NoSandbox,
		chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(time.Minute))
	allocator, end := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(end)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	b := &browser{ctx: ctx}
	// The first call of a browser must not have a deadline: it would be that of
	// the browser.
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *browser) listen(event any) {
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		b.complain("console %s: %v", e.Type, e.Args)
	case *runtime.EventExceptionThrown:
		b.complain("exception: %v", e.ExceptionDetails)
	case *log.EventEntryAdded:
		b.complain("log %s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL)
	}
}

func findChromium() (string, error) {
	const program = "/usr/bin/chromium"
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("%w: install the Debian package chromium, as make deps does", err)
	}
	return program, nil
}

func (b *browser) complain(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems = append(b.problems, fmt.Sprintf(format, args...))
}

// complaints returns what the browser complained of since the last call.
func (b *browser) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer func() { b.problems = nil }()
	return b.problems
}

func (b *browser) do(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// result returns what an action has to say.
func result[T any](t *testing.T, b *browser, action chromedp.Action[T]) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	v, err := chromedp.Run(ctx, action)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// evaluate returns what an expression is on the page.
func evaluate[T any](t *testing.T, b *browser, expression string) T {
	t.Helper()
	return result(t, b, chromedp.Evaluate[T](expression))
}

// until waits for an expression to become true on the page.
func (b *browser) until(t *testing.T, expression string) {
	t.Helper()
	result(t, b, chromedp.Poll[bool](expression, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(30*time.Second)))
}

// prefer sets the colour scheme.
func (b *browser) prefer(t *testing.T, scheme string) {
	t.Helper()
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	}); err != nil {
		t.Fatal(err)
	}
}

// forwarded is a port on which the socket of a site can be reached, as "ssh -L"
// makes one.
func (s *site) forwarded(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, nc := range open {
			nc.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", s.server.Addr().String())
			if err != nil {
				in.Close()
				continue
			}
			mu.Lock()
			open = append(open, in, out)
			mu.Unlock()
			all.Go(func() { io.Copy(in, out); in.Close() })
			all.Go(func() { io.Copy(out, in); out.Close() })
		}
	})
	return l.Addr().String()
}

// manyBackends is the shards of n backends that are not there.
func manyBackends(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "shard \"s%d\" {\n  backend \"mail%03d\" {\n    address = \"127.0.0.1:%d\"\n  }\n}\n", i, i, 1+i%7)
	}
	return b.String() + "route \"ring\" {}\n"
}

// TestStatusPage: in both widths, both colour schemes, with few and with many
// backends: nothing to complain of, nothing outside of the window.
func TestStatusPage(t *testing.T) {
	b := startBrowser(t)
	for _, backends := range []int{3, 200} {
		s := startWith(t, `address = "127.0.0.1:0"`, manyBackends(backends))
		url := "http://" + s.server.Addr().String() + "/"
		for _, width := range []int64{1280, 390} {
			for _, scheme := range []string{"light", "dark"} {
				name := fmt.Sprintf("%d-backends-%d-%s", backends, width, scheme)
				b.prefer(t, scheme)
				b.do(t, chromedp.EmulateViewport(width, 900), chromedp.Navigate(url))
				b.until(t, fmt.Sprintf(`document.querySelectorAll("#backend-table tbody tr").length === %d && document.querySelector("#ready").textContent.includes("accepts sessions")`, backends))
				if over := evaluate[int](t, b, `document.documentElement.scrollWidth - window.innerWidth`); over > 0 {
					t.Errorf("%s: %d pixels wider than the window", name, over)
				}
				if shown := evaluate[int](t, b, `[...document.querySelectorAll(".acts button")].filter((e) => e.checkVisibility()).length`); shown != 0 {
					t.Errorf("%s: a viewer gets %d buttons", name, shown)
				}
				if dark := evaluate[bool](t, b, `getComputedStyle(document.body).backgroundColor === "rgb(19, 20, 23)"`); dark != (scheme == "dark") {
					t.Errorf("%s: the wrong colours", name)
				}
				if nameless := evaluate[[]string](t, b, nameless); len(nameless) > 0 {
					t.Errorf("%s: without a name for a screen reader: %q", name, nameless)
				}
				if problems := b.complaints(); problems != nil {
					t.Errorf("%s: %q", name, problems)
				}
				if *screenshots != "" {
					picture := result(t, b, chromedp.FullScreenshot(100))
					if err := os.WriteFile(filepath.Join(*screenshots, name+".png"), picture, 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
}

// nameless finds what a screen reader could not name.
const nameless = `[...document.querySelectorAll("button, input, svg, meter, dialog, table, section")].filter((e) =>
	!e.closest("dialog:not([open])") && !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.closest("label") || e.textContent.trim() || e.querySelector("caption"))
).map((e) => e.outerHTML.slice(0, 80))`

// TestStatusPageByKeyboard: an operator drains and resumes a backend without a
// mouse, and cannot do so by accident.
func TestStatusPageByKeyboard(t *testing.T) {
	b := startBrowser(t)
	s := startWith(t, socket, manyBackends(3))
	b.do(t, chromedp.EmulateViewport(1280, 900), chromedp.Navigate("http://"+s.forwarded(t)+"/"))
	b.until(t, `document.querySelectorAll("#backend-table tbody tr").length === 3`)
	focused := func() string {
		return evaluate[string](t, b, `(document.activeElement.getAttribute("aria-label") || document.activeElement.textContent || document.activeElement.id).trim()`)
	}
	tabTo := func(name string) {
		t.Helper()
		var seen []string
		for range 30 {
			b.do(t, chromedp.KeyEvent(kb.Tab))
			if seen = append(seen, focused()); seen[len(seen)-1] == name {
				return
			}
		}
		t.Fatalf("no %q among %q", name, seen)
	}
	state := func() string { return s.proxy.Backends()[1].Stat.Operator.String() }

	tabTo("Drain mail001")
	b.do(t, chromedp.KeyEvent(kb.Enter))
	b.until(t, `document.querySelector("#ask").open`)
	if f := focused(); f != "Cancel" {
		t.Errorf("the dialog begins at %q", f)
	}
	b.do(t, chromedp.KeyEvent(kb.Escape))
	b.until(t, `!document.querySelector("#ask").open`)
	if f := focused(); f != "Drain mail001" || state() != "active" {
		t.Errorf("after Escape: at %q, the backend is %s", f, state())
	}

	b.do(t, chromedp.KeyEvent(kb.Enter))
	b.until(t, `document.querySelector("#ask").open`)
	tabTo("Drain")
	b.do(t, chromedp.KeyEvent(kb.Enter))
	b.until(t, `!document.querySelector("#ask").open && document.querySelector("#summary").textContent.includes("1 taken out of service")`)
	if f := focused(); f != "Resume mail001" || state() != "draining" {
		t.Errorf("after Drain: at %q, the backend is %s", f, state())
	}
	b.do(t, chromedp.KeyEvent(kb.Enter))
	b.until(t, `document.querySelector("#ask").open`)
	tabTo("Resume")
	b.do(t, chromedp.KeyEvent(kb.Enter))
	b.until(t, `!document.querySelector("#ask").open`)
	if state() != "active" {
		t.Errorf("after Resume: the backend is %s", state())
	}
	b.do(t, chromedp.Focus("#find"), chromedp.KeyEvent("MAIL002"))
	b.until(t, `[...document.querySelectorAll("#backend-table tbody tr")].filter((e) => e.checkVisibility()).length === 1`)
	if problems := b.complaints(); problems != nil {
		t.Errorf("%q", problems)
	}
}

// TestPageFiles: the page and what it loads, with a policy that allows nothing
// else, and nothing beside them.
func TestPageFiles(t *testing.T) {
	s := startWith(t, `address = "127.0.0.1:0"`, manyBackends(1))
	for path, kind := range map[string]string{"/": "text/html", "/page/page.js": "text/javascript", "/page/page.css": "text/css", "/page/icon.svg": "image/svg+xml", "/page/": "", "/page/page.go": "", "/page/..%2fpage.go": ""} {
		resp, err := http.Get("http://" + s.server.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if kind == "" {
			if resp.StatusCode != http.StatusNotFound {
				t.Errorf("%s: %s", path, resp.Status)
			}
			continue
		}
		if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), kind) || !strings.HasPrefix(resp.Header.Get("Content-Security-Policy"), "default-src 'none';") {
			t.Errorf("%s: %s %v", path, resp.Status, resp.Header)
		}
		for _, outside := range []string{"http://", "https://", "//cdn", "innerHTML", "eval("} {
			if text := strings.ReplaceAll(string(body), "http://www.w3.org/2000/svg", ""); strings.Contains(text, outside) {
				t.Errorf("%s has %q", path, outside)
			}
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
