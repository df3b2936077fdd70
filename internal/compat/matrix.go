package main

import (
	"fmt"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/markdown"
)

// cell of the matrix.
type cell struct {
	client  client
	backend dovecot.Version
}

// matrix counts findings.
type matrix struct {
	clients      []client
	releases     map[dovecot.Version]string
	counts       map[cell]*[verdicts]int
	explanations map[explanationID]int // trials in which each changed what is expected
}

func newMatrix(clients []client) *matrix {
	m := &matrix{
		clients: clients, releases: map[dovecot.Version]string{},
		counts: map[cell]*[verdicts]int{}, explanations: map[explanationID]int{},
	}
	for _, c := range clients {
		for _, version := range dovecot.Versions() {
			m.counts[cell{c, version}] = new([verdicts]int)
		}
	}
	return m
}

func (m *matrix) add(f finding) {
	m.counts[f.cell][f.verdict]++
	for _, id := range f.explanations {
		m.explanations[id]++
	}
}

// cases of one cell.
func (m *matrix) cases(c cell) (n int) {
	for _, count := range m.counts[c] {
		n += count
	}
	return n
}

func (m *matrix) total(v verdict) (n int) {
	for _, count := range m.counts {
		n += count[v]
	}
	return n
}

// stale returns the explanations that explained nothing.
func (m *matrix) stale(all []*explanation) (ids []explanationID) {
	for _, e := range all {
		if m.explanations[e.id] == 0 {
			ids = append(ids, e.id)
		}
	}
	return ids
}

// table returns the matrix in Markdown.
func (m *matrix) table() string {
	header := []string{"client"}
	for _, version := range dovecot.Versions() {
		header = append(header, "on Dovecot "+string(version), "equal", "explained", "unexplained")
	}
	t := markdown.NewTable(header...)
	for _, c := range m.clients {
		row := []string{c.String()}
		for _, version := range dovecot.Versions() {
			row = append(row, fmt.Sprint(m.cases(cell{c, version})))
			for _, count := range m.counts[cell{c, version}] {
				row = append(row, fmt.Sprint(count))
			}
		}
		t.Row(row...)
	}
	return t.String()
}

// summary returns the totals in a sentence.
func (m *matrix) summary() string {
	var cases []string
	for _, version := range dovecot.Versions() {
		cases = append(cases, fmt.Sprintf("%d on Dovecot %s", len(allCases(version)), m.releases[version]))
	}
	return fmt.Sprintf("Command cases: %s. Comparisons in %d pairs of client and backend: %d, of which %d are equal, %d explained and %d unexplained.\n",
		strings.Join(cases, ", "), len(m.counts), m.total(equal)+m.total(explained)+m.total(unexplained),
		m.total(equal), m.total(explained), m.total(unexplained))
}
