//! Operations.

macro_rules! ops {
    ($($(#[$doc:meta])* $group:ident { $($name:ident),* $(,)? })*) => {
        /// What an instruction does. Names are the manual's mnemonics; a format suffix (`S`, `D`,
        /// `W`, `L`, `Ps`) follows where the format is part of the operation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        #[allow(missing_docs)]
        pub enum Op { $($($name),*),* }

        impl Op {
            /// Needs 64-bit operations enabled (`Status.PX` or `UX` in user mode), else Reserved
            /// Instruction.
            #[must_use]
            pub const fn is_64bit(self) -> bool {
                match self {
                    $($(Self::$name => ops!(@wide $group)),*),*
                }
            }

            /// Has a delay slot (or may nullify the next instruction).
            #[must_use]
            pub const fn is_branch(self) -> bool {
                match self {
                    $($(Self::$name => ops!(@branch $group)),*),*
                }
            }
        }
    };
    (@branch branch) => { true };
    (@branch $other:ident) => { false };
    (@wide wide) => { true };
    (@wide $other:ident) => { false };
}

ops! {
    pseudo {
        // Zero, so that zeroed memory is an undecoded page.
        Undecoded, Reserved, CopUnusable,
        // Common forms with a meaning of their own: no effect, a constant, a copy.
        Nop, Li, Move,
    }
    alu {
        Sll, Srl, Rotr, Sra, Sllv, Srlv, Rotrv, Srav,
        Add, Addu, Sub, Subu, And, Or, Xor, Nor, Slt, Sltu, Movz, Movn,
        Addi, Addiu, Slti, Sltiu, Andi, Ori, Xori,
        Mfhi, Mthi, Mflo, Mtlo, Mult, Multu, Div, Divu,
        Madd, Maddu, Msub, Msubu, Mul, Clz, Clo,
        Ext, Ins, Wsbh, Seb, Seh,
    }
    wide {
        Dsllv, Dsrlv, Drotrv, Dsrav, Dsll, Dsrl, Drotr, Dsra,
        Dadd, Daddu, Dsub, Dsubu, Daddi, Daddiu,
        Dmult, Dmultu, Ddiv, Ddivu, Dclz, Dclo, Dext, Dins, Dsbh, Dshd,
        Ldl, Ldr, Lwu, Ld, Lld, Sdl, Sdr, Sd, Scd,
        Dmfc0, Dmtc0, Dmfc1, Dmtc1,
    }
    branch {
        J, Jal, Jr, Jalr, B, Beq, Bne, Blez, Bgtz, Bltz, Bgez, Bltzal, Bgezal,
        Beql, Bnel, Blezl, Bgtzl, Bltzl, Bgezl, Bltzall, Bgezall,
        Bc1f, Bc1t, Bc1fl, Bc1tl, Bc1any2f, Bc1any2t, Bc1any4f, Bc1any4t,
    }
    memory {
        Lb, Lbu, Lh, Lhu, Lw, Lwl, Lwr, Ll, Sb, Sh, Sw, Swl, Swr, Sc,
        Lwc1, Ldc1, Swc1, Sdc1, Lwxc1, Ldxc1, Luxc1, Swxc1, Sdxc1, Suxc1,
    }
    system {
        Syscall, Break, Sync, Synci, Cache, Pref, Prefx,
        Tge, Tgeu, Tlt, Tltu, Teq, Tne, Tgei, Tgeiu, Tlti, Tltiu, Teqi, Tnei,
        Rdhwr, Mfc0, Mtc0, Rdpgpr, Wrpgpr, Di, Ei,
        Tlbr, Tlbwi, Tlbwr, Tlbp, Tlbinv, Tlbinvf, Eret, Wait,
    }
    fpu {
        Movf, Movt, Mfc1, Mtc1, Mfhc1, Mthc1, Cfc1, Ctc1,
        AddS, AddD, AddPs, SubS, SubD, SubPs, MulS, MulD, MulPs, DivS, DivD,
        SqrtS, SqrtD, AbsS, AbsD, AbsPs, NegS, NegD, NegPs, MovS, MovD, MovPs,
        RecipS, RecipD, RsqrtS, RsqrtD,
        Recip1S, Recip1D, Recip1Ps, Recip2S, Recip2D, Recip2Ps,
        Rsqrt1S, Rsqrt1D, Rsqrt1Ps, Rsqrt2S, Rsqrt2D, Rsqrt2Ps,
        // To an integer, with the rounding mode in `imm` (4: FCSR.RM).
        ToWS, ToWD, ToLS, ToLD,
        CvtSD, CvtSW, CvtSL, CvtDS, CvtDW, CvtDL,
        CvtPsS, CvtSPu, CvtSPl, CvtPsPw, CvtPwPs, AddrPs, MulrPs, AlnvPs,
        // pll, plu, pul, puu: bit 1 of `imm` chooses the upper half of fs, bit 0 that of ft.
        PackPs,
        // These have their format in `imm`: there are not enough numbers for all.
        Movcf, MovzF, MovnF, Cmp, Cabs, MaddF, MsubF, NmaddF, NmsubF,
    }
}
