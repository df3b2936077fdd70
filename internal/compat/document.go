package main

import (
	"github.com/doveadm-proxy/doveadm-proxy/internal/markdown"
)

// Names of the blocks of the documents.
const (
	matrixBlock       = "compatibility matrix"
	totalsBlock       = "compatibility totals"
	explanationsBlock = "compatibility explanations"
	notComparedBlock  = "compatibility replacements"
)

// documents have blocks to be filled, from the top of the project.
var documents = []string{"README.md", "docs/compatibility.md"}

// blocks are what the documents have a place for.
func (m *matrix) blocks() map[string]string {
	return map[string]string{
		matrixBlock:       m.table(),
		totalsBlock:       m.summary(),
		explanationsBlock: explanationTable(),
		notComparedBlock:  replacementTable(),
	}
}

// explanationTable lists the explained differences.
func explanationTable() string {
	t := markdown.NewTable("where", "through the proxy", "reason")
	for _, e := range explanations() {
		t.Row(string(e.id), e.what, e.reason)
	}
	return t.String()
}

// replacementTable lists what is not compared.
func replacementTable() string {
	t := markdown.NewTable("what", "reason")
	for _, n := range normalizations() {
		t.Row(n.what, n.reason)
	}
	for _, n := range orderNormalizations() {
		t.Row(n.what, n.reason)
	}
	t.Row("Dovecot's indexes, caches and locks, in what is left of a user's mail", "it writes them when it looks, whatever it was told")
	t.Row("names of new mail files, sizes in the lists of UIDs, the next UID where it follows from the last one", "names are made of time and process; the others are written when Dovecot comes to it")
	return t.String()
}

// checkDocuments fails if a document has no place for anything.
func checkDocuments() error {
	for _, path := range documents {
		if _, err := markdown.Filled(path, new(matrix).blocks()); err != nil {
			return err
		}
	}
	return nil
}

// writeDocuments fills the blocks of all documents.
func (m *matrix) writeDocuments() error {
	for _, path := range documents {
		if err := markdown.Fill(path, m.blocks()); err != nil {
			return err
		}
	}
	return nil
}
