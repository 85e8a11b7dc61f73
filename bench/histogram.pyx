# cython: language_level=3
"""Latency histograms: percentiles of millions of values in 16 KB, and sums of histograms."""

from libc.string cimport memset


cdef class Histogram:
    """Counts of nanosecond values, exact to 1.6 %, with the exact maximum and sum."""

    def __cinit__(self):
        memset(&self.buckets, 0, sizeof(Buckets))

    def __len__(self):
        return self.buckets.count

    def record(self, uint64_t value_ns):
        """Count one value."""
        record(&self.buckets, value_ns)

    def merge(self, Histogram other not None):
        """Add the counts of another histogram to this one."""
        cdef int bucket
        for bucket in range(BUCKETS):
            self.buckets.counts[bucket] += other.buckets.counts[bucket]
        self.buckets.count += other.buckets.count
        self.buckets.value_sum += other.buckets.value_sum
        self.buckets.value_max = max(self.buckets.value_max, other.buckets.value_max)

    def sparse(self):
        """Every bucket that holds something, as [bucket, count], and the maximum and sum: JSON
        that `add_sparse` takes."""
        cdef int bucket
        return {"counts": [[bucket, self.buckets.counts[bucket]] for bucket in range(BUCKETS)
                           if self.buckets.counts[bucket]],
                "max_ns": self.buckets.value_max, "sum_ns": self.buckets.value_sum}

    def add_sparse(self, values):
        """Add what `sparse` of another histogram gave."""
        for bucket, count in values["counts"]:
            if not 0 <= bucket < BUCKETS:
                raise ValueError(f"there is no bucket {bucket}")
            self.buckets.counts[<int>bucket] += count
            self.buckets.count += count
        self.buckets.value_sum += values["sum_ns"]
        self.buckets.value_max = max(self.buckets.value_max, values["max_ns"])

    def percentile(self, double percent):
        """The value in ns that `percent` of the values do not exceed; 0 when empty."""
        cdef uint64_t wanted = <uint64_t>(self.buckets.count * percent / 100.0 + 0.999999)
        cdef uint64_t seen = 0
        cdef uint64_t top
        cdef int bucket
        if not self.buckets.count:
            return 0
        if wanted == 0:
            wanted = 1
        for bucket in range(BUCKETS):
            seen += self.buckets.counts[bucket]
            if seen >= wanted:
                top = bucket_top(bucket)
                return top if top < self.buckets.value_max else self.buckets.value_max
        return self.buckets.value_max

    def summary(self):
        """Count, mean, p50, p90, p95, p99, p99.9 and max as a dictionary, times in ns."""
        count = self.buckets.count
        return {
            "count": count, "mean_ns": self.buckets.value_sum // count if count else 0,
            "p50_ns": self.percentile(50), "p90_ns": self.percentile(90),
            "p95_ns": self.percentile(95), "p99_ns": self.percentile(99),
            "p99.9_ns": self.percentile(99.9),
            "max_ns": self.buckets.value_max,
        }
