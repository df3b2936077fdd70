package main

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// numbers are one figure of a row, measured in each round.
type numbers []float64

func pick(samples []sample, figure func(sample) float64) numbers {
	var n numbers
	for _, s := range samples {
		n = append(n, figure(s))
	}
	return n
}

func millis(samples []sample, figure func(sample) time.Duration) numbers {
	return pick(samples, func(s sample) float64 { return float64(figure(s)) / float64(time.Millisecond) })
}

func micros(samples []sample, figure func(sample) time.Duration) numbers {
	return pick(samples, func(s sample) float64 { return float64(figure(s)) / float64(time.Microsecond) })
}

func (n numbers) median() float64 {
	sorted := slices.Sorted(slices.Values(n))
	middle := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[middle-1] + sorted[middle]) / 2
	}
	return sorted[middle]
}

// format writes the median.
func (n numbers) format(decimals int) string { return format(n.median(), decimals) }

// spread writes the median, and behind it the lowest and the highest.
func (n numbers) spread(decimals int) string {
	return fmt.Sprintf("%s (%s–%s)", n.format(decimals), format(slices.Min(n), decimals), format(slices.Max(n), decimals))
}

func format(value float64, decimals int) string {
	return strconv.FormatFloat(value, 'f', decimals, 64)
}

// by divides round by round.
func (n numbers) by(other numbers) numbers {
	var all numbers
	for i := range n {
		all = append(all, n[i]/other[i])
	}
	return all
}

// less subtracts round by round.
func (n numbers) less(other numbers) numbers {
	var all numbers
	for i := range n {
		all = append(all, n[i]-other[i])
	}
	return all
}
