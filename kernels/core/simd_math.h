// Elementary functions over eight lanes, for any of the lane types (Avx2, Portable).
#pragma once

namespace moebench {

// e^x to about 2 ulp. Below -87.3 it is e^-87.3 (1e-38), above 88.3 e^88.3; NaN stays NaN.
// x = n ln 2 + r with |r| <= ln(2) / 2, e^x = 2^n e^r; the polynomial of e^r is Cephes' (Moshier,
// netlib cephes/single/expf.c).
template <class S>
typename S::F32 exponential(typename S::F32 x) {
  x = S::min(S::set(88.3F), S::max(S::set(-87.3F), x));  // in this order, NaN passes through
  const auto n = S::round(S::mul(x, S::set(1.44269504F)));
  auto r = S::multiply_add(n, S::set(-0.693359375F), x);
  r = S::multiply_add(n, S::set(2.12194440e-4F), r);
  auto p = S::set(1.9875691500e-4F);
  p = S::multiply_add(p, r, S::set(1.3981999507e-3F));
  p = S::multiply_add(p, r, S::set(8.3334519073e-3F));
  p = S::multiply_add(p, r, S::set(4.1665795894e-2F));
  p = S::multiply_add(p, r, S::set(1.6666665459e-1F));
  p = S::multiply_add(p, r, S::set(5.0000001201e-1F));
  p = S::add(S::multiply_add(p, S::mul(r, r), r), S::set(1.0F));
  const auto power = S::shift_left(S::add_words(S::to_words(n), S::set_words(127)), 23);
  return S::mul(p, S::as_float(power));
}

}  // namespace moebench
