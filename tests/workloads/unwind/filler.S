/* SPDX-License-Identifier: Apache-2.0 */
/* Text on both sides of the functions of a program, so that these lie within whole huge pages. */
	.section .text.unlikely, "ax", @progbits
	.type filler_before, @function
	.globl filler_before
filler_before:
	.skip 0x400000, 0xcc
	.size filler_before, . - filler_before
	.section .text.zz_filler, "ax", @progbits
	.type filler_after, @function
	.globl filler_after
filler_after:
	.skip 0x400000, 0xcc
	.size filler_after, . - filler_after
	.section .note.GNU-stack, "", @progbits
