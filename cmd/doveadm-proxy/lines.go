package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"
)

const (
	maxUserLine = 64 << 10 // bytes of a line
	linesBlock  = 64 << 10 // bytes that a worker gets at a time
)

// block is some lines on their way: read, worked on, written in turn.
type block struct {
	lines []byte
	out   chan []byte
}

// eachLine calls work for the lines of in, on all cores and more for what waits
// for an answer from elsewhere, and writes what it appends to dst in the order of
// the lines. newWork makes the function that one worker calls; empty lines are
// left out.
func eachLine(ctx context.Context, in io.Reader, out io.Writer, newWork func() func(ctx context.Context, dst []byte, line string) []byte) error {
	workers := 4 * runtime.GOMAXPROCS(0)
	todo, turn := make(chan block), make(chan block, workers)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(todo)
		defer close(turn)
		lines := bufio.NewReaderSize(in, maxUserLine)
		for {
			b := block{out: make(chan []byte, 1)}
			err := error(nil)
			if b.lines, err = readLines(lines); err != nil {
				return err
			}
			if len(b.lines) == 0 {
				return nil
			}
			select {
			case turn <- b:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case todo <- b:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	for range workers {
		group.Go(func() error {
			work := newWork()
			for b := range todo {
				var dst []byte
				for line := range bytes.Lines(b.lines) {
					if line = bytes.TrimRight(line, "\r\n"); len(line) > 0 {
						dst = work(ctx, dst, string(line))
					}
				}
				b.out <- dst
			}
			return nil
		})
	}
	group.Go(func() error {
		buffered := bufio.NewWriterSize(out, linesBlock)
		for b := range turn {
			select {
			case text := <-b.out:
				if _, err := buffered.Write(text); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return buffered.Flush()
	})
	return group.Wait()
}

// readLines reads whole lines, a block of them; none at the end.
func readLines(in *bufio.Reader) ([]byte, error) {
	var lines []byte
	for len(lines) < linesBlock {
		line, err := in.ReadSlice('\n')
		lines = append(lines, line...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("a line of more than %d bytes: write one user a line", maxUserLine)
		case err == io.EOF:
			return lines, nil
		case err != nil:
			return nil, err
		}
	}
	return lines, nil
}

// appendColumn appends a column of a table whose columns are separated by tabs.
// What would be taken for the end of a column or line is written with a
// backslash.
func appendColumn(dst []byte, text string) []byte {
	for i := range len(text) {
		switch c := text[i]; c {
		case '\t':
			dst = append(dst, `\t`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\\':
			dst = append(dst, `\\`...)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
