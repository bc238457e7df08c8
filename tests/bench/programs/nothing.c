/* SPDX-License-Identifier: Apache-2.0 */

/* The least that an exec can be of. */
int main(void)
{
	return 0;
}
