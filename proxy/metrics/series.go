package metrics

// Series is a metric with its values, for who sends them on.
type Series struct {
	Family
	Bounds []float64 // of a Histogram: the upper ends, inclusive, of all buckets but the last; ascending
	Points []Point
}

// Point is the value for one set of labels.
type Point struct {
	Labels  []string // values, as many as the Family has labels
	Value   float64  // of a Histogram the sum of the observations
	Buckets []uint64 // of a Histogram: the observations in each, one more than there are Bounds
}

// Series answers all of the proxy's own metrics that have a value.
func (m *Metrics) Series() []Series {
	s := m.take()
	var all []Series
	for i := range m.defs {
		d := &m.defs[i]
		series := Series{Family: d.Family}
		for _, x := range d.samples(s) {
			p := Point{Labels: x.labels, Value: x.value}
			if d.distribution() {
				series.Bounds = x.buckets.bounds
				p.Value, p.Buckets = x.buckets.sum, x.buckets.each()
			}
			series.Points = append(series.Points, p)
		}
		if len(series.Points) > 0 {
			all = append(all, series)
		}
	}
	return all
}

// each is how many observations fell into each bucket.
func (b buckets) each() []uint64 {
	all := make([]uint64, 0, len(b.counts)+1)
	below := uint64(0)
	for _, n := range b.counts {
		all = append(all, n-below)
		below = n
	}
	return append(all, b.count-below)
}
